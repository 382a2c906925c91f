"""The panels of the Effigy tab in the 3D View, the preferences page, and the progress in the status bar."""
