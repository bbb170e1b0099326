"""What finished runs say.

    results     summaries of runs -> the table of a comparison
    comparison  a comparison as it lies in files
    verdicts    the values of the runs -> the verdict of a rule
    histories   what runs logged -> small tables of curves, results and trajectories

All numbers come from the files of the runs.
"""
