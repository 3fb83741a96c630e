"""What makes the bundled clips and the bundled network; nothing in `sfmttr` imports it."""
