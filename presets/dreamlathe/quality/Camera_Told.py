import bpy

settings = bpy.context.scene.dreamlathe
settings.preset = "standard"
settings.guidance.camera_conditioning = True
settings.guidance.guidance_scale = 3
settings.guidance.perp_neg_strength = 2
settings.guidance.timestep_range = (0.4, 0.98)
settings.guidance.timestep_end = (0.25, 0.6)
settings.optimize.view_growth = 0
settings.refine.iterations = 640
