"""The page: python app.py. A Hugging Face Space starts this file, too."""

from demo.server import main

if __name__ == "__main__":
    main()
