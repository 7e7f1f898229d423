"""How hard properties are tried: quickly with every change, thoroughly with HYPOTHESIS_PROFILE=thorough."""

import os

from hypothesis import settings

# No deadline: a shared machine stalls now and then, and that says nothing about the code.
settings.register_profile("quick", deadline=None, max_examples=15)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
