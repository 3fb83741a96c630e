"""The page: python app.py. Also what a Hugging Face Space starts."""

from demo.layout import main

if __name__ == "__main__":
    main()
