"""Two services on two nodes that share events over Glyn, in Python; each can be swapped for its Gleam twin.

Terminal 1:  python -m pyglyn node --sname inventory@localhost --cookie eventsourcing \\
                 --app examples.distributed_nodes.inventory:app
Terminal 2:  python -m pyglyn node --sname order@localhost --cookie eventsourcing \\
                 --connect inventory@localhost --app examples.distributed_nodes.order:app
Terminal 3:  python -m pyglyn call order@localhost shop buy '<<"order_001">>' '<<"laptop">>' 2 --cookie eventsourcing

Terminal 1 prints the order. The Gleam twins are ``inventory_service`` and ``order_service`` in `interop/gleam`.
"""
