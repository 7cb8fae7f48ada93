"""How the steps are wired. Whoever starts one has its console prepared before the seconds of importing begin."""

from textvae.console import prepare

prepare()
