"""From a folder of pictures to records that can be trained on: looked at once, in stages; written by rules.

sources    pictures and the captions they came with, from folders and tar files
stages/    caption, words, boxes, masks, faces: a class each, and any can be another one
look       every picture through all stages; what was found is kept, so that several processes share the work
records    what of it is good enough, who is the same on several pictures, and the files that training reads
page       a sheet and a page that show what was made
"""
