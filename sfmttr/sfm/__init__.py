"""Private parts of structure-from-motion; `sfmttr.sfm.reconstruction` is the public face."""
