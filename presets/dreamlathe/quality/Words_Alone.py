import bpy

settings = bpy.context.scene.dreamlathe
settings.preset = "standard"
settings.guidance.camera_conditioning = False
settings.guidance.guidance_scale = 10
settings.guidance.perp_neg_strength = 4
settings.guidance.timestep_range = (0.3, 0.7)
settings.guidance.timestep_end = (0.1, 0.3)
settings.optimize.view_growth = 0.5
settings.refine.iterations = 0
