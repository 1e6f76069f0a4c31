"""The neural engine: PoseAnything behind the interface of the engines."""
