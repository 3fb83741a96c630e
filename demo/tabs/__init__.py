"""The parts of the page: `build` creates the components of one, `wire` connects them to their handlers."""
