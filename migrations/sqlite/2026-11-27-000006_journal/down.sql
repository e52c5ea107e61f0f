-- PostgreSQL gets two functions here that save its Journal round trips; SQLite has none to save.
SELECT 1;
