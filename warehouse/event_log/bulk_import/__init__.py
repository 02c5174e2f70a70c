"""Bulk imports: a spool on local disk, then segments for new streams or commits for existing ones."""
