DROP TABLE logins;
DROP TABLE trail;
DROP TABLE trail_heads;
