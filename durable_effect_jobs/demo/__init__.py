"""What ``durable-effect demo`` plays: four jobs, the world around them, and a worker that gets killed.

:mod:`.jobs` is where to start reading: the jobs as an application would write them. :mod:`.web` is
how they reach the world, :mod:`.outside` is that world, :mod:`.worker` the process that hosts the jobs, and
:mod:`.play` what happens to it.
"""
