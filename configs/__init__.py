"""The shipped configs, found by `face_d2.get_config_file`."""
