"""Private parts of structure-from-motion; `sfmttr.sfm` is the public face."""
