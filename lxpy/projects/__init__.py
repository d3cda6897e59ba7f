"""Projects: name spaces of instances, and where wanted of images and profiles."""
