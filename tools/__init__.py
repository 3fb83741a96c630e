"""Tools that make the bundled clips and the bundled network; nothing in `sfmttr` imports them."""
