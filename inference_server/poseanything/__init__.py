"""PoseAnything: the model, its guidance, its weights and the pipeline over them."""
