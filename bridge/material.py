"""Materials of results: one opaque surface with packed pictures."""

from __future__ import annotations

from typing import Any, cast

import bpy
from bpy.types import Image, Material


def build_material(name: str, picture: bytes, roughness: float, metallic: float) -> Material:
    """An opaque Principled material with the packed picture as its base colour."""
    material, tree, inputs = _surface(name)
    inputs["Roughness"].default_value = roughness
    inputs["Metallic"].default_value = metallic
    texture = _picture_node(tree, pack_image(name, picture), (-320, 0))
    tree.links.new(texture.outputs["Color"], inputs["Base Color"])
    return material


def quad_material(name: str, colour: Image, normal: Image) -> Material:
    """An opaque Principled material with one picture as its base colour and one as its tangent-space normals."""
    material, tree, inputs = _surface(name)
    inputs["Roughness"].default_value = 0.8
    tree.links.new(_picture_node(tree, colour, (-320, 0)).outputs["Color"], inputs["Base Color"])
    bumps = tree.nodes.new("ShaderNodeNormalMap")
    bumps.location = (-320, -320)
    tree.links.new(_picture_node(tree, normal, (-640, -320)).outputs["Color"], bumps.inputs["Color"])
    tree.links.new(bumps.outputs["Normal"], inputs["Normal"])
    return material


def _surface(name: str) -> tuple[Material, Any, Any]:
    """A material with a Principled surface alone; its node tree, and the surface's inputs."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:  # before Blender 5 a new material has no nodes
        material.use_nodes = True
    tree: Any = material.node_tree
    tree.nodes.clear()
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    output.location = (300, 0)
    surface = tree.nodes.new("ShaderNodeBsdfPrincipled")
    tree.links.new(surface.outputs["BSDF"], output.inputs["Surface"])
    return material, tree, surface.inputs


def _picture_node(tree: Any, picture: Image, place: tuple[float, float]) -> Any:
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image, node.location = picture, place
    return node


def pack_image(name: str, content: bytes) -> Image:
    """A picture file as an image packed into the .blend."""
    image = bpy.data.images.new(name, 8, 8)
    image.pack(data=cast("Any", content), data_len=len(content))
    image.source = "FILE"
    cast("Any", image).colorspace_settings.name = "sRGB"
    return image
