"""New projects, made from the files in ``template/``: a domain, its tests, sample events, and a CI workflow."""
