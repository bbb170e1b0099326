"""Reads finished runs, and computes what a report says of them:

    results     summaries of runs -> the table of a comparison
    comparison  the files of a comparison -> its runs, and what a report needs to know of them
    verdicts    the values of the runs -> the verdict of a rule
    standings   several comparisons -> how their methods stand over all of them
    histories   what the runs logged -> small tables of curves, results and trajectories

All numbers come from the files of the runs.
"""
