"""What ``durable-effect demo`` plays: four jobs, the world around them, and a worker that gets killed.

:mod:`.jobs` is where to start reading: the jobs as an application would write them. :mod:`.web` is how they
reach the world and :mod:`.outside` is that world. :mod:`.worker` is the process that hosts the jobs,
:mod:`.child` the same seen by its parent; :mod:`.courier` brings it calls, :mod:`.play` is what happens to
it, and :mod:`.books` finds out whether anything was lost.
"""
