"""How `sfmttr.frames.loader` reads clips, folders and zip files; nothing else imports from here."""
