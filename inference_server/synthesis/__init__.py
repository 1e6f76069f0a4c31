"""Pose-video pairs with perfect truth: creatures drawn in two dimensions, in any number."""
