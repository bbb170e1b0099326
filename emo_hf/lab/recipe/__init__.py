"""What a recipe asks. It is checked in full before anything starts.

    fields      the words and numbers of a recipe
    arms        optimizer settings
    baselines   optimizers of other packages
    data        where the examples come from
    task        what is learned, and how large model and training are
    rules       what decides a claim
    schema      what a recipe may say; a `Recipe` gives one `RunConfig` per arm and seed
    validation  whether the parts of a recipe fit together
    parsing     a YAML file -> keys and values, within bounds
    loading     these -> `Recipe`
    sweep       a recipe for the agents of W&B

A recipe is data: it names no code, and no path but of data below its own folder or ``--data-dir``.
"""
