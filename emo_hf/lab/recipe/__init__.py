"""What a recipe asks: its words, arms, task and rules, checked in full before anything starts.

    fields      the words and numbers of a recipe
    arms        optimizer settings
    baselines   optimizers of other packages
    task        what is learned, and how large model and training are
    rules       what decides a claim
    schema      what a recipe may say; a `Recipe` gives one `RunConfig` per arm and seed
    validation  what is wrong with a recipe whose parts are valid one by one
    loading     a YAML file -> `Recipe`
    sweep       a recipe for the agents of W&B

A recipe is data: it names no code and no path.
"""
