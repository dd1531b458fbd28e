"""Texts judged: graded by a rubric, compared in pairs, rated, and measured without a judge.

A judge is a language model behind an OpenAI-compatible server, or a person. Nothing here runs a model of ours.
"""
