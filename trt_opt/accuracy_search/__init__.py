"""The INT8/FP16 assignment that meets an accuracy budget with the most compute left in INT8."""
