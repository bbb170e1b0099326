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
    ramps           the ramp of EmoFree on the task of a recipe, alone

`runner` writes the folders and `worker` trains in them; `functions` and `ramps` need neither. All other modules serve
these four.
"""
