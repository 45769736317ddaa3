"""Two services on two nodes that share events over Glyn, in Python; each can be swapped for its Gleam twin.

Terminal 1:  python -m pyglyn node --sname inventory@localhost --cookie eventsourcing \\
                 --app examples.distributed_nodes.inventory:app
Terminal 2:  python -m pyglyn node --sname order@localhost --cookie eventsourcing \\
                 --app examples.distributed_nodes.order:app
Terminal 3:  python -m pyglyn call order@localhost shop buy '<<"order_002">>' '<<"laptop">>' 2 --cookie eventsourcing

Terminal 1 prints the orders. The Gleam twins are ``inventory_service`` and ``order_service`` of the example
``distributed_nodes`` of Gleam's ``eventsourcing_glyn``: the same commands, events, entities, names and lines.
Stores other than memory are given as URLs in ``INVENTORY_STORE`` and ``ORDER_STORE``, an inventory on another
node as ``INVENTORY_NODE``.
"""
