"""How runs are trained: one folder and one process (or several) for each `RunConfig`.

    preflight       what the runs need, checked before the first one starts
    runner          starts the workers, several at once; skips finished runs, moves broken ones aside
    processes       the processes of a run: how they start, and why they ended
    preload         what the server imports that runs are forked from
    worker          trains one `RunConfig` in a process of its own
    training        a `RunConfig` -> its summary
    arguments       a `RunConfig` -> the arguments of its Trainer
    trainer         the Trainer of an arm
    callbacks       what a run writes while it trains
    replay          the step sizes of an earlier run
    handover        a training cut in two
    checkpoints     lets a broken run go on
    measures        the numbers of a run, computed from its files
    progress_table  what is shown while runs are under way
    functions       the paths of optimizers over two test functions

`runner` writes the folders and `worker` trains in them. All other modules serve one of the two.
"""
