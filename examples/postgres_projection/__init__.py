"""A durable query that keeps a table of stock levels beside the events, and a page to look at.

python -m pyglyn node --sname stock@localhost --cookie eventsourcing --app examples.postgres_projection.app:app

Environment: ``STORE`` is the database of the events, ``INTO`` the one of the table; ``sqlite:stock.db`` for both
unless given, e.g. ``postgresql://localhost/stock``. The page is at http://127.0.0.1:8080 (``PORT``).
"""
