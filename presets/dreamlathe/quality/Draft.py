import bpy

bpy.context.scene.dreamlathe.preset = "draft"
