"""How `sfmttr.video` reads clips, folders and zip files; nothing else imports from here."""
