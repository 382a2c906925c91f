"""What Effigy draws: the Effigy tab of the 3D View, the status bar."""
