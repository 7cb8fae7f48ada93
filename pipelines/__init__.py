from textvae.console import prepare

prepare()
