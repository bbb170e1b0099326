"""Comparisons: recipes, the tasks they train, the runs they start, and the tables they end in.

    strict   the words and numbers of a recipe
    arms     optimizer settings
    spec     what a recipe may say; a Recipe gives one Cell per arm and seed
    load     a YAML file -> Recipe, checked in full before anything starts
    sources  where examples come from: shipped with the package, a local folder, the hub
    tasks    a Cell -> model, tokenizer, data sets, metric
    child    trains one Cell in a process of its own
    processes  the processes of a run: how they start, and why they ended
    runner   runs the children, several at once, skips what is finished, moves aside what is broken
    checkpoints  lets a broken run go on
    live     what is shown of runs under way
    sweep    a recipe for the agents of W&B
    results  result files -> the table of a comparison

    functions  the paths of optimizers over two test functions
    curves     what the laws answer to the scalar and to the loss
    histories  what runs logged -> small tables of curves, results and trajectories
    figures    pictures of all of these; needs matplotlib
    card_data  what is known of the runs of an arm
    card       its model card
    laws       the laws of the catalog in words
    pages      the documentation page of every optimizer

Nothing here prints: `emo_hf.cli` shows what these return.
"""
