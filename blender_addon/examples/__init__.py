"""Creatures and scenes built from nothing: for the Example Shot button, the demo and synthetic data.

Everything is built into the scene of the context that is given, headless too, and a seed says which of the
many variants it becomes; the seed 0 is the fox of the demo:

    rig = scenes.example_shot(bpy.context, seed=3)
"""
