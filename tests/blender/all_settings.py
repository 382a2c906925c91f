"""Every setting of a render, a scene, a view layer, a camera and an object, and what becomes of it when avatars are
rendered. `test_all_settings.py` compares this table with the Blender that it runs in.

A name may end with the first version that has the setting (`name>=5.2`) or the first that lacks it (`name<5.0`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Sorted:
    """The settings of one of Blender's types. Names are separated by spaces."""

    followed: dict[str, str] = field(default_factory=dict)
    """By the test that shows it, `file::test` without the `test_` and `.py` of both; `blender::NAME` for what Blender
    itself does with the finished image, shown by the entry NAME of `EFFECTS` in `test_all_settings`."""
    not_needed: dict[str, str] = field(default_factory=dict)
    """By the reason."""
    told: dict[str, str] = field(default_factory=dict)
    """By a part of the sentence that the artist reads when the setting is used."""


DATABLOCK: Final = (
    "name name_full id_type session_uid is_evaluated original users use_fake_user use_extra_user is_embedded_data "
    "is_linked_packed>=5.0 is_missing is_runtime_data is_editable tag is_library_indirect library "
    "library_weak_reference asset_data override_library preview deep_hash>=5.3 animation_data"
)
OF_ITS_DATABLOCK: Final = "is a datablock's own, whatever renders it"
OTHER_ENGINES: Final = "is about surfaces, light and textures of other engines, of which an avatar has none"
VIEWPORT: Final = "is about the viewport and the interface"
STATE: Final = "is a fact that cannot be set, or repeats another setting"
SPEED: Final = "changes speed and memory, not the image"
SOUND: Final = "is about sound"
BAKING: Final = "is about baking textures"
PARTS: Final = "is a group of settings, which has its own entry here or belongs to another engine"

TABLE: Final[dict[str, Sorted]] = {
    "RenderSettings": Sorted(
        followed={
            "engine_blur::a_turning_head_is_the_mean_of_sharp_images": (
                "use_motion_blur motion_blur_position motion_blur_shutter"
            ),
            "engine_blur::the_shutters_curve_weighs_the_times": "motion_blur_shutter_curve",
            "engine_image::percentage_and_aspect_change_the_size_and_not_the_view": (
                "resolution_x resolution_y resolution_percentage"
            ),
            "engine_image::a_border_is_a_window_in_the_whole_picture": (
                "use_border border_min_x border_max_x border_min_y border_max_y use_crop_to_border"
            ),
            "engine_camera::a_point_is_projected_to_the_same_pixel_as_by_blender": "pixel_aspect_x pixel_aspect_y",
            "engine_image::a_film_that_is_not_transparent_has_the_colour_of_the_world_behind": "film_transparent",
            "all_settings::time_stretching_shows_the_pose_of_the_stretched_time": "frame_map_old frame_map_new",
            "all_settings::frame_step_overwrite_and_placeholders_are_blenders": (
                "filepath use_overwrite use_placeholder use_file_extension"
            ),
            "all_settings::a_film_has_the_scenes_rate": "fps fps_base",
            "engine_composite::objects_hide_the_avatar_and_are_hidden_by_it": "engine",
            "blender::compositing": "use_compositing",
            "blender::sequencer": "use_sequencer",
            "blender::dither": "dither_intensity",
            "blender::stamp": (
                "use_stamp use_stamp_camera use_stamp_date use_stamp_filename use_stamp_frame use_stamp_frame_range "
                "use_stamp_hostname use_stamp_labels use_stamp_lens use_stamp_marker use_stamp_memory use_stamp_note "
                "use_stamp_render_time use_stamp_scene use_stamp_sequencer_strip use_stamp_time stamp_background "
                "stamp_font_size stamp_foreground stamp_note_text metadata_input"
            ),
        },
        not_needed={
            SPEED: (
                "threads threads_mode use_persistent_data use_render_cache use_lock_interface compositor_device "
                "compositor_precision compositor_denoise_device>=5.0 compositor_denoise_final_quality>=5.0 "
                "compositor_denoise_preview_quality>=5.0 use_compositor_frames_cache>=5.3"
            ),
            OTHER_ENGINES: (
                "anisotropic_filter>=5.2 hair_subdiv hair_type use_high_quality_normals use_texture_cache>=5.2 "
                "use_auto_generate_texture_cache>=5.2"
            ),
            "filters the samples of a surface; Gaussians are filtered where they are rasterised": "filter_size",
            "reduces subdivision, hair and textures, of which an avatar has none": (
                "use_simplify simplify_subdivision simplify_subdivision_render simplify_child_particles "
                "simplify_child_particles_render simplify_volumes use_simplify_normals simplify_gpencil "
                "simplify_gpencil_antialiasing simplify_gpencil_modifier simplify_gpencil_onplay "
                "simplify_gpencil_shader_fx simplify_gpencil_tint simplify_gpencil_view_fill"
            ),
            "is read by Blender's windows, which then ask an engine for one layer only": "use_single_layer",
            VIEWPORT: "preview_pixel_size sequencer_gl_preview use_sequencer_override_scene_strip",
            STATE: (
                "file_extension has_multiple_engines is_movie_format use_spherical_stereo save_output>=5.2 "
                "ppm_base>=5.0 ppm_factor>=5.0"
            ),
            PARTS: "image_settings ffmpeg bake",
            BAKING: (
                "bake_bias<5.0 bake_margin<5.0 bake_margin_type<5.0 bake_samples<5.0 bake_type<5.0 "
                "bake_user_scale<5.0 use_bake_clear<5.0 use_bake_lores_mesh<5.0 use_bake_multires<5.0 "
                "use_bake_selected_to_active<5.0 use_bake_user_scale<5.0"
            ),
        },
        told={
            "one view at a time": "use_multiview stereo_views views views_format",
            "Freestyle draws no lines": "use_freestyle line_thickness line_thickness_mode",
        },
    ),
    "Scene": Sorted(
        followed={
            "engine_animation::a_film_moves_with_camera_and_parent": "camera frame_start frame_end",
            "engine_composite::an_animation_follows_frame_camera_and_what_is_new_in_the_scene": "timeline_markers",
            "all_settings::frame_step_overwrite_and_placeholders_are_blenders": "frame_step",
            "all_settings::time_stretching_shows_the_pose_of_the_stretched_time": (
                "frame_current frame_subframe frame_float frame_current_final"
            ),
            "engine_image::a_film_that_is_not_transparent_has_the_colour_of_the_world_behind": "world",
            "all_settings::a_rig_in_a_background_scene_is_rendered": "background_set",
            "engine_image::an_excluded_collection_is_not_rendered_and_an_instance_of_it_is": (
                "collection objects view_layers"
            ),
            "blender::compositing": ("compositing_node_group>=5.0 compositor_effects>=5.3 node_tree<5.0 use_nodes"),
            "blender::sequencer": "sequence_editor",
        },
        not_needed={
            OF_ITS_DATABLOCK: DATABLOCK,
            VIEWPORT: (
                "active_clip cursor display frame_preview_end frame_preview_start use_preview_range "
                "lock_frame_selection_to_range safe_areas show_keys_from_selected_only show_subframe sync_mode "
                "tool_settings transform_orientation_slots playback_loop_mode>=5.2 time_jump_delta>=5.0 "
                "time_jump_unit>=5.0 wrap_timeline_navigation>=5.3 keying_sets keying_sets_all is_nla_tweakmode"
            ),
            SOUND: (
                "audio_distance_model audio_doppler_factor audio_doppler_speed audio_volume use_audio use_audio_scrub"
            ),
            "moves objects, whose places are then read like any other": (
                "gravity use_gravity rigidbody_world simulation_frame_end simulation_frame_start "
                "use_custom_simulation_range allow_preroll>=5.2"
            ),
            "is how numbers are shown; a head keeps its size in Blender's units": "unit_settings",
            "draws over the finished image by Blender itself": (
                "annotation>=5.0 grease_pencil<5.0 grease_pencil_settings use_stamp_note"
            ),
            PARTS: "render display_settings view_settings sequencer_colorspace_settings eevee hydra",
        },
    ),
    "ViewLayer": Sorted(
        followed={
            "nothing_to_draw::a_view_layer_without_the_rig_is_empty_beside_one_with_it": (
                "use layer_collection objects active_layer_collection"
            ),
            "engine_image::passes_are_scene_linear_colour_and_depth_in_metres": "use_pass_z use_pass_combined",
            "all_settings::the_world_behind_is_that_of_the_view_layer": "use_sky world_override",
            "all_settings::a_layer_without_surfaces_has_no_avatar": "use_solid",
            "engine_blur::the_composite_is_blurred_like_its_scene": "use_motion_blur",
            "engine_mattes::objects_and_materials_are_cut_out_of_the_image": (
                "use_pass_cryptomatte_object use_pass_cryptomatte_material use_pass_cryptomatte_asset "
                "use_pass_object_index use_pass_material_index"
            ),
            "engine_mattes::the_head_in_front_covers_the_other_and_a_holdout_both": "pass_cryptomatte_depth",
        },
        not_needed={
            OF_ITS_DATABLOCK: "name",
            STATE: (
                "depsgraph has_export_collections active_aov active_aov_index active_lightgroup active_lightgroup_index"
            ),
            OTHER_ENGINES: "samples use_ao use_strand use_volumes pass_alpha_threshold eevee",
            "chooses between sampling and exactness: shares are exact here": "use_pass_cryptomatte_accurate",
            "draws over the finished image by Blender itself": "use_grease_pencil>=5.0",
        },
        told={
            "Freestyle draws no lines": "use_freestyle freestyle_settings",
            "material override": "material_override",
            "Not made": (
                "aovs lightgroups use_pass_ambient_occlusion "
                "use_pass_diffuse_color use_pass_diffuse_direct use_pass_diffuse_indirect "
                "use_pass_emit use_pass_environment use_pass_glossy_color use_pass_glossy_direct "
                "use_pass_glossy_indirect use_pass_grease_pencil>=5.0 use_pass_mist "
                "use_pass_normal use_pass_position use_pass_shadow use_pass_subsurface_color "
                "use_pass_subsurface_direct use_pass_subsurface_indirect use_pass_transmission_color "
                "use_pass_transmission_direct use_pass_transmission_indirect use_pass_uv use_pass_vector"
            ),
        },
    ),
    "Camera": Sorted(
        followed={
            "engine_camera::a_point_is_projected_to_the_same_pixel_as_by_blender": (
                "angle angle_x angle_y lens lens_unit ortho_scale sensor_fit sensor_height sensor_width shift_x shift_y"
            ),
            "engine_image::an_orthographic_camera_sees_what_a_long_lens_sees_from_afar": "type",
            "all_settings::the_cameras_clipping_range_cuts_the_avatar": "clip_start clip_end",
            "engine_blur::a_head_out_of_focus_is_the_mean_over_the_lens": "dof",
        },
        not_needed={
            OF_ITS_DATABLOCK: DATABLOCK,
            VIEWPORT: (
                "background_images show_background_images display_size passepartout_alpha show_composition_center "
                "show_composition_center_diagonal show_composition_golden show_composition_golden_tria_a "
                "show_composition_golden_tria_b show_composition_harmony_tri_a show_composition_harmony_tri_b "
                "show_composition_thirds composition_guide_color>=5.0 show_limits show_mist show_name "
                "show_passepartout show_safe_areas show_safe_center show_sensor"
            ),
        },
        told={
            "panoramic or custom lens": (
                "panorama_type fisheye_fov fisheye_lens fisheye_polynomial_k0 fisheye_polynomial_k1 "
                "fisheye_polynomial_k2 fisheye_polynomial_k3 fisheye_polynomial_k4 latitude_max latitude_min "
                "longitude_max longitude_min central_cylindrical_radius>=5.0 central_cylindrical_range_u_max>=5.0 "
                "central_cylindrical_range_u_min>=5.0 central_cylindrical_range_v_max>=5.0 "
                "central_cylindrical_range_v_min>=5.0 custom_bytecode>=5.0 custom_bytecode_hash>=5.0 "
                "custom_filepath>=5.0 custom_mode>=5.0 custom_shader>=5.0"
            ),
            "one view at a time": "stereo",
        },
    ),
    "CameraDOFSettings": Sorted(
        followed={
            "engine_blur::a_head_out_of_focus_is_the_mean_over_the_lens": "use_dof aperture_fstop focus_distance",
            "engine_blur::the_focus_is_blenders": "focus_object focus_subtarget aperture_ratio",
            "engine_blur::the_plane_in_focus_stays_and_other_points_move_by_the_blur": (
                "aperture_blades aperture_rotation"
            ),
        }
    ),
    "CameraStereoData": Sorted(
        told={
            "one view at a time": (
                "convergence_distance convergence_mode interocular_distance pivot pole_merge_angle_from "
                "pole_merge_angle_to use_pole_merge use_spherical_stereo"
            )
        }
    ),
    "SceneRenderView": Sorted(told={"one view at a time": "camera_suffix file_suffix name use"}),
    "Stereo3dFormat": Sorted(
        told={
            "one view at a time": (
                "anaglyph_type display_mode interlace_type use_interlace_swap use_sidebyside_crosseyed "
                "use_squeezed_frame"
            )
        }
    ),
    "ImageFormatSettings": Sorted(
        followed={
            "blender::file format": "file_format media_type>=5.0 color_mode color_depth compression quality",
            "blender::colour management of the file": (
                "color_management display_settings view_settings linear_colorspace_settings has_linear_colorspace"
            ),
            "engine_image::passes_are_scene_linear_colour_and_depth_in_metres": "exr_codec use_exr_interleave>=5.0",
        },
        not_needed={
            "is a choice of one file format, which Blender writes alike for every engine": (
                "cineon_black cineon_gamma cineon_white use_cineon_log jpeg2k_codec use_jpeg2k_cinema_48 "
                "use_jpeg2k_cinema_preset use_jpeg2k_ycc tiff_codec use_preview"
            )
        },
        told={"one view at a time": "stereo_3d_format views_format"},
    ),
    "FFmpegSettings": Sorted(
        followed={
            "engine_animation::a_film_moves_with_camera_and_parent": "format codec",
            "all_settings::a_film_has_the_scenes_rate": (
                "use_lossless_output constant_rate_factor custom_constant_rate_factor>=5.2 ffmpeg_preset "
                "ffmpeg_prores_profile>=5.0 gopsize max_b_frames use_max_b_frames video_bitrate maxrate minrate "
                "buffersize muxrate packetsize use_autosplit"
            ),
        },
        not_needed={SOUND: "audio_bitrate audio_channels audio_codec audio_mixrate audio_volume"},
    ),
    "ColorManagedViewSettings": Sorted(
        followed={
            "blender::exposure": "exposure",
            "blender::gamma": "gamma",
            "blender::view transform": "view_transform",
            "blender::look": "look",
            "blender::curves": "use_curve_mapping curve_mapping",
            "blender::white balance": (
                "use_white_balance>=5.0 white_balance_temperature>=5.0 white_balance_tint>=5.0 "
                "white_balance_whitepoint>=5.0"
            ),
        },
        not_needed={STATE: "is_hdr>=5.0 support_emulation>=5.0", VIEWPORT: "use_hdr_view<5.0"},
    ),
    "ColorManagedDisplaySettings": Sorted(
        followed={"blender::display device": "display_device"},
        not_needed={VIEWPORT: "emulation>=5.0"},
    ),
    "LayerCollection": Sorted(
        followed={
            "nothing_to_draw::the_picture_is_empty": "exclude indirect_only collection children",
            "engine_holdout::a_holdout_cuts_its_avatar_out_of_the_image": "holdout",
        },
        not_needed={VIEWPORT: "hide_viewport", STATE: "is_visible name"},
    ),
    "Collection": Sorted(
        followed={
            "nothing_to_draw::the_picture_is_empty": "hide_render",
            "all_settings::an_instance_is_offset_as_its_collection_says": "instance_offset",
            "engine_image::an_excluded_collection_is_not_rendered_and_an_instance_of_it_is": (
                "all_objects objects children collection_children collection_objects"
            ),
        },
        not_needed={
            OF_ITS_DATABLOCK: DATABLOCK.replace(" animation_data", ""),
            VIEWPORT: "active_exporter_index exporters importer>=5.3 color_tag hide_select hide_viewport",
            OTHER_ENGINES: (
                "lineart_intersection_mask lineart_intersection_priority lineart_usage lineart_use_intersection_mask "
                "use_lineart_intersection_priority"
            ),
        },
    ),
    "Object": Sorted(
        followed={
            "all_settings::the_avatar_goes_where_its_armature_goes": (
                "location rotation_euler rotation_quaternion rotation_axis_angle rotation_mode scale delta_location "
                "delta_rotation_euler delta_rotation_quaternion delta_scale matrix_basis matrix_local matrix_world "
                "matrix_parent_inverse parent parent_bone parent_type parent_vertices "
                "parent_bone_head_tail_factor>=5.2 constraints dimensions use_parent_final_indices>=5.0"
            ),
            "rig_pose::a_render_reads_the_pose_of_its_frame_although_the_mesh_is_not_rendered": "pose animation_data",
            "nothing_to_draw::the_picture_is_empty": "hide_render",
            "engine_holdout::a_holdout_cuts_its_avatar_out_of_the_image": "is_holdout",
            "engine_image::an_excluded_collection_is_not_rendered_and_an_instance_of_it_is": (
                "instance_collection instance_type"
            ),
        },
        not_needed={
            OF_ITS_DATABLOCK: DATABLOCK.replace(" animation_data", ""),
            STATE: (
                "bound_box data is_from_instancer is_from_set is_instancer mode type use_dynamic_topology_sculpting "
                "motion_path active_shape_key active_shape_key_index"
            ),
            VIEWPORT: (
                "active_material_index animation_visualization color display "
                "display_bounds_type display_type empty_display_size empty_display_type empty_image_depth "
                "empty_image_offset empty_image_side hide_select hide_surface_pick>=5.0 hide_viewport lock_location "
                "lock_rotation lock_rotation_w lock_rotations_4d lock_scale show_all_edges show_axis show_bounds "
                "show_empty_image_only_axis_aligned show_empty_image_orthographic show_empty_image_perspective "
                "show_in_front show_instancer_for_viewport show_name show_texture_space show_transparent show_wire "
                "use_camera_lock_parent use_empty_image_alpha image_user use_mesh_mirror_x use_mesh_mirror_y "
                "use_mesh_mirror_z use_shape_key_edit_mode show_only_shape_key track_axis up_axis"
            ),
            "is about the mesh, which other engines render, for its shadow and reflection": (
                "visible_camera visible_diffuse visible_glossy visible_raycast>=5.2 visible_shadow "
                "visible_transmission visible_volume_scatter is_shadow_catcher light_linking lightgroup pass_index "
                "active_material material_slots shadow_terminator_geometry_offset>=5.0 "
                "shadow_terminator_normal_offset>=5.0 shadow_terminator_shading_offset>=5.0 "
                "add_rest_position_attribute hide_probe_plane hide_probe_sphere hide_probe_volume lineart "
                "use_grease_pencil_lights vertex_groups grease_pencil_modifiers<5.0 shader_effects"
            ),
            "instances a mesh on another's faces; the places of instances are read like any other": (
                "instance_faces_scale use_instance_faces_scale use_instance_vertices_rotation "
                "show_instancer_for_render particle_systems"
            ),
            "moves an object, whose place is read like any other": (
                "collision field rigid_body rigid_body_constraint soft_body use_simulation_cache"
            ),
        },
        told={"and not of its avatar": "modifiers"},
    ),
}
