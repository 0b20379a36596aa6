"""From a realm's name to a working group of servers.

    names, realmsfile, lookup   which names can be realms, and the addresses behind them (realms file, DNS)
    memory                      what is remembered on disk for a start without network
    server, links, schedule     one server: up or down, its connections, when it is probed
    channel                     how packets get there: UDP, or a TLS tunnel
    probes, callbacks           probing servers; the service that servers call
    login, tokens               passwords against tokens; who is logged in where, in memory and on disk
    realm, realms               volume location; all realms, and the tasks that look after them
    core, round, collate        one answer out of those of a group
    reading, fetching           calls that change nothing; contents
    updating, handles, cop2     updates, large stores, second phases
    group                       all of that for the ring above

The ring above uses `Realms`, `Realm`, `Volume`, `Group`, `Server`, and what is in `types`.
"""
