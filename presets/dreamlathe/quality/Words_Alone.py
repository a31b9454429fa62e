import bpy

settings = bpy.context.scene.dreamlathe
settings.preset = "standard"
settings.guidance.camera_conditioning = False
settings.guidance.guidance_scale = 10
settings.guidance.perp_neg_strength = 4
settings.guidance.timestep_range = (0.5, 0.98)
settings.guidance.timestep_end = (0.2, 0.4)
settings.optimize.view_growth = 0.5
settings.refine.iterations = 0
