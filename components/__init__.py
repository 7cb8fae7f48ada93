"""The steps, one file each. Whoever starts one has its console prepared before the seconds of importing begin."""

from textvae.console import prepare

prepare()
