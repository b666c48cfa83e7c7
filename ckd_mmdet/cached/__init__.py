"""What a teacher says of every training image, kept in files: a student then trains without the teacher."""
