import bpy

settings = bpy.context.scene.dreamlathe
settings.preset = "standard"
settings.guidance.guidance_scale = 100
settings.guidance.timestep_range = (0.02, 0.98)
settings.guidance.timestep_end = (0.02, 0.98)
settings.optimize.iterations = 10000
settings.refine.iterations = 0
