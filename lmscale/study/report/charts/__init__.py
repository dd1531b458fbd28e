"""The report's figures as data for the page: pure functions of a table, its fits and its checks.

Each is of the same numbers as the drawing of its name in `figures`: both read `study/plots`.
"""
