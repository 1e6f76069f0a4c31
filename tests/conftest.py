from hypothesis import settings

# Examples share their cores with other work: how long one takes says nothing.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
