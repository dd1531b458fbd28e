"""What happens inside a trained model: its attention and predictions layer by layer, and which parts cause an answer.

Pure functions on parameters and tokens, on the tap of the forward pass. Nothing here prints or draws.
"""
