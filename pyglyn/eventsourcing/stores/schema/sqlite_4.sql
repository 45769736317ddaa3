-- Nothing is other than before: both kinds of databases have the same versions.

UPDATE pyglyn_schema SET version = 4;
