"""Between Blender and the worker: the process and its pipes, the job, the rig of the scene, the result's import.

``pipes``, ``worker_client``, ``job``, ``environment`` and ``glb`` know nothing of Blender.
"""
